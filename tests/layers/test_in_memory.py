"""The contract on Channels' own layer: what it asks for is what Channels does."""

import pytest
from channels.layers import InMemoryChannelLayer

from tests.layers.contract import ChannelLayerContract, MakeLayer


class TestInMemoryChannelLayer(ChannelLayerContract):
    @pytest.fixture
    def make_layer(self) -> MakeLayer:
        return InMemoryChannelLayer
