"""The demo site: an order desk whose page follows its orders."""
