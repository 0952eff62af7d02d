"""Whole tasks on files: what the command line and the page offer, without their manners."""
