"""What `domainclip data check` and `data preview` do: a corpus looked at before anything is trained."""
