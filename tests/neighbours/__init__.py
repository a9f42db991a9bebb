"""Sessions beside other people's plugins, one each."""
