"""Recipes: functions that return a complete configuration; `resolve` lays the user's wishes over one."""

from plusx.recipes.plan import Plan
from plusx.recipes.recipe import best, cifar, fast, finetune, list_recipes, recipe, textbook
from plusx.recipes.resolve import resolve

__all__ = ["Plan", "best", "cifar", "fast", "finetune", "list_recipes", "recipe", "resolve", "textbook"]
