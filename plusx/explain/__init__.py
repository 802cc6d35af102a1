"""Why a network answers as it does: class-activation maps, occlusion, and checks of both."""
