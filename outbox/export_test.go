package outbox

// RelayHeld returns how much the relay has in memory.
func (o *Outbox) RelayHeld() (events, bytes int) {
	r := o.current().relay
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held, r.bytes
}
