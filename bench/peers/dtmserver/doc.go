// Package dtmserver holds no code: its module says with which versions the dtm server is built.
//
//	go build github.com/dtm-labs/dtm
package dtmserver
