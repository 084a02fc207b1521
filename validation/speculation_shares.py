def checks(engine):
    return []
