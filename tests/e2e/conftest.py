"""Real programs need real time; what they leave behind is a failure."""
