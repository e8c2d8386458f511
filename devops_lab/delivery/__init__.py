"""What Code to Release stand on: review, compilers, tests, versions, materials, image, registry."""
