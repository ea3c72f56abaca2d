// Package remoting speaks RocketMQ's remoting protocol from either side: frames and their headers, request signatures,
// properties, commit-log records, and a connection that carries requests both ways.
//
// A frame is a length, a header with its encoding, and a body. Both peers of a connection send requests; a response
// carries the opaque number of its request and bit 0 of the flag.
package remoting
