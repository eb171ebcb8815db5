"""The contract on Channels' own in-memory layer, which proves that the contract is Channels'."""

import pytest
from channels.layers import InMemoryChannelLayer

from tests.layers.contract import ChannelLayerContract, MakeLayer


class TestInMemoryChannelLayer(ChannelLayerContract):
    @pytest.fixture
    def make_layer(self) -> MakeLayer:
        return InMemoryChannelLayer
