"""Operations that some platforms compute faster in another form."""
