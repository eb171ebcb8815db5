from realtime.log import delete, history


def latest(topic):
    return [(event.seq, event.name, event.data, event.time) for event in history(topic, last=20)]


def forget(topic):
    delete(topic)  # followers are reset once and read the state anew
