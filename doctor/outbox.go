package doctor

var outboxChecks = []check{}
