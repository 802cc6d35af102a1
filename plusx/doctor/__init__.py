"""What is wrong with the data: looked for, named, never touched."""
