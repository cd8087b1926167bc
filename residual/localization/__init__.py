"""ImageNet localization (appendix C): where on an image its class is."""
