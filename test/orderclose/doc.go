// Package orderclose holds no code. Its tests run the order-close flow of examples/ under faults and check each promise
// afterwards. The tests of single requests and outages inject one fault at a time; TestSchedules derives from a seed what
// customers do, what fails, and when.
//
//	go test ./test/orderclose -run Schedules -schedules 1000
//	go test ./test/orderclose -run Schedules -seed 42 -v
package orderclose
