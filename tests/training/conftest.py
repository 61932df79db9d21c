from torch._dynamo.convert_frame import ConvertFrame
from untraced import untrace

untrace(ConvertFrame, "__call__")
