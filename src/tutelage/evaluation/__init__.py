"""Figures and pictures from stored predictions. Imports no training code."""
