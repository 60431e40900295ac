"""What an operator of a live federation sees and does on the command line."""
