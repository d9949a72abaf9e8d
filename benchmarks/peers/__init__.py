"""The peers: for each a virtual environment, made by pip when it is first asked for, and a program that runs in it."""
