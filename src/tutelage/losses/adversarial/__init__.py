"""Losses in which a discriminator learns to tell the student from the teacher."""
