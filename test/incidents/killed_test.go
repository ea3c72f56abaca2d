package incidents

const envPublisher = "INCIDENTS_PUBLISHER"

func publishUntilKilled() {}
