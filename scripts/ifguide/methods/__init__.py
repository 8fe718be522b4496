"""The methods that are compared: a method is made of steps, and a step is one file here."""
