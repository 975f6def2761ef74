"""The pages for operators, and who may use them."""
