"""The XMP packet of a statement: IPTC's DigitalSourceType and AI properties. The same statement, the same bytes."""

from __future__ import annotations

from typing import Final

from flux_engine.media.marks.statement import TOOL, Statement

PACKET: Final = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType={source}
 Iptc4xmpExt:AISystemUsed={model}
 Iptc4xmpExt:AISystemVersionUsed={revision}
 xmp:CreatorTool={tool}/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def xmp_packet(statement: Statement) -> bytes:
    """The packet, UTF-8 without a zero byte, a few hundred bytes long."""
    from xml.sax.saxutils import quoteattr  # six modules, which a worker's start can do without

    return PACKET.format(
        source=quoteattr(statement.source_uri),
        model=quoteattr(statement.model),
        revision=quoteattr(statement.revision),
        tool=quoteattr(TOOL),
    ).encode()
