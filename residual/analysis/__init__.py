"""From networks and runs to what the paper says about them: complexity, figures."""
