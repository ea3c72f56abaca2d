package console

// ForgetReads forgets the results of reads that are kept for other viewers.
func ForgetReads(c *Console) {
	c.reads.mu.Lock()
	defer c.reads.mu.Unlock()
	for key, r := range c.reads.byKey {
		if !r.until.IsZero() {
			delete(c.reads.byKey, key)
		}
	}
}
