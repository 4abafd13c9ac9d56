"""The units of recognition: phones, tokens, and n-grams over tokens."""
