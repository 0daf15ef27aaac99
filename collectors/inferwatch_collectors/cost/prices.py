"""The price book. It lives in `inferwatch.price_book`, since the relay reserves by the same prices."""

from inferwatch.price_book import NO_PRICE, NO_TOKENS, NS_PER_DAY, REASONS, PriceBook

__all__ = ["NO_PRICE", "NO_TOKENS", "NS_PER_DAY", "REASONS", "PriceBook"]
