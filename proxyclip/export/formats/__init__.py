"""How does each tool want its labels? One file a format."""
