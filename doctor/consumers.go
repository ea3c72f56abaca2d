package doctor

var consumerChecks = []check{}
