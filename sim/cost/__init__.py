"""What a step costs: op families priced from a model, a GPU and its constants. Knows no sequence, no clock."""
