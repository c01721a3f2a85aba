"""Learners described as data: specs, names, the cells they take, costs and recommendations."""
