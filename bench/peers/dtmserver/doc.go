// Package dtmserver has no code. Its module lists the versions with which the dtm server is built.
//
//	go tool dtm -h
package dtmserver
