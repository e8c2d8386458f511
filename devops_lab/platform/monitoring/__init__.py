"""What is measured, and what is said of it: histograms, alerts, objectives, export."""
