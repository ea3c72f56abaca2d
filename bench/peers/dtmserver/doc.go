// Package dtmserver holds no code: its module says with which versions the dtm server is built.
//
//	go tool dtm -h
package dtmserver
