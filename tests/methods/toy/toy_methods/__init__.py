"""Five steps, one at each stage and two that decode: none of them is of use."""
