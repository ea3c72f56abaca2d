package doctor

var flowChecks = []check{}
