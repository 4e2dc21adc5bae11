"""The contract `trunkline.v1`: code generated from protos/, never edited by hand."""
