"""Shares a run: from an allow-list, searched before it leaves, private unless said otherwise."""
