// Package guards switches the guards of the outbox and of the handlers off, one after the other, and has package chaos
// find what goes wrong then: a proof that can't fail proves nothing. It has tests alone. They build the driver from
// changed copies of the sources, by the Go tool's -overlay, so that the sources know nothing of it.
package guards
