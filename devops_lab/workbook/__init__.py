"""The notebooks run from end to end: kernel, progress, pages, outputs, and JupyterLab."""
