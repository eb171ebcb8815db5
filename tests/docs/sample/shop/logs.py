from realtime.log import delete, history


def latest(topic):
    return [(event.seq, event.name, event.data, event.time) for event in history(topic, last=20)]


def forget(topic):
    delete(topic)  # each subscriber gets one reset and fetches the state again
