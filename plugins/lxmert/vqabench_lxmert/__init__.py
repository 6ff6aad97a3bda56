"""The LXMERT backbone for vqabench."""
