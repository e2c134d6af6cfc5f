// What the component exports. A plugin without it is an error here.

import type { Processor } from "host:plugin/processor@1.0.0";
import { processor as found } from "../plugin";

export const processor: Processor = found;
