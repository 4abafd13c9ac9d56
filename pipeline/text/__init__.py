"""What is recognised: phones, tokens, n-grams over them."""
