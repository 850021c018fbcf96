"""The files of the API's routes that stand on their own: each has `add(app, supervisor, document)`."""

from hostd import api_chaos, api_offices, api_offloads, api_queues, api_revocations, api_volumes, api_wires, api_worlds

ROUTES = (api_worlds, api_chaos, api_offices, api_offloads, api_queues, api_revocations, api_volumes, api_wires)
