"""Influence-guided token suppression, a room a subject; a room knows only those before it.

files, data, models, influence, evaluation, methods, report, planning, workflow.
"""
