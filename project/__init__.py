"""The demo site: an order desk whose pages follow the orders."""
