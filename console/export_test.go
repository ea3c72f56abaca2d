package console

// ForgetReads forgets the results of reads that are kept for other viewers.
func ForgetReads(c *Console) { c.reads.forget() }
