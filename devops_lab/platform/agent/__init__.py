"""The agent: the background process of one lab (`python -m devops_lab.platform.agent LABDIR`).

reconciler: the control loop; observe and scrape: what it measures; __main__: the process around them.
"""
